"""Attacks without training: one Attacker, one Defender, your questions; what it found, in figures, pictures
and a data set.
"""
