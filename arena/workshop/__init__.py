"""How the bundled players were made: training scripts, measurements and model cards. Run from the folder
`arena`, e.g. `python -m workshop.train_vlm --help`.
"""
