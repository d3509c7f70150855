"""`sparring view`: runs, attacks, probes, evaluations, forges and fine-tunings below a folder, in a browser,
while they go on and after. Nothing in these folders is written to or locked.
"""
