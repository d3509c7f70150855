"""The forge: the two-stage pipeline that turns picture questions into pairs of a clean and an adversarial
picture (AOT-SFT, arXiv 2602.22227).
"""
