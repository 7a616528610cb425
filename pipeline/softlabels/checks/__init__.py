"""What every door asks of outputs before they are kept or learnt from: arrays in, findings out. No disk, no model, no torch.

docs/checks.md is the matrix of checks and doors, and says what each cannot see. What must open a file, a model or a prepare
function stands beside the code that opens it.
"""
