"""Probing Defenders without training them: attacks on pictures and on text, faithfulness and calibration,
several Defenders side by side.
"""
