"""The embedded world: scenes of look-alike things, their questions, an oracle that reads them back, and small
checkpoints that play in it.
"""

__version__ = "0.1.0"
