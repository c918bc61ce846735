"""`--probe`: one input through two models, module by module; the proof that weights are where they belong."""
