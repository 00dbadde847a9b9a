"""weft.evals"""
