"""How the built-in model was made: tokenizer, autoencoder, text encoder, UNet, reader, and their export.

`python -m dreamctl.builtin.training --work FOLDER` runs all stages and goes on where it was stopped.
"""
