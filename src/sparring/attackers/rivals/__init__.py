"""Opponents that nobody trains, behind the interface that a trained editor fits too: baselines and the
measure of an attack.
"""

from sparring.attackers.rivals.base import Rival
from sparring.attackers.rivals.load import all_corruptions, check_rival, load_rival

__all__ = ["Rival", "all_corruptions", "check_rival", "load_rival"]
