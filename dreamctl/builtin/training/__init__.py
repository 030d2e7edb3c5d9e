"""How the built-in model was made: autoencoder, tokenizer and text encoder, latents, UNet, decoder, reader, export.

`python -m dreamctl.builtin.training --work FOLDER` runs all stages and goes on where it was stopped.

The stages, and what each is for:
  vae      pictures to latents of unit deviation and back
  text     captions to states that tell what they name; nonce words lie in the middle of the known people's names, so
           that they are neutral and yet a short way from every identity (this is what makes a subject teachable)
  pool     49 k drawings as latents
  unet     latents from noise, obeying captions; the text encoder learns along slowly
  decoder  sharper pictures from the same latents
  reader   the judge: attributes back from pictures

The weights in `dreamctl/builtin/model` and the reader's come from one such training from nothing, stopped once and gone
on with, on two CPU cores in an hour and three quarters: autoencoder 11 minutes, text 2, latents 3, UNet 79 (576,000
samples at 121 a second), decoder 6, reader 4. On a base without names, its nonce words wherever chance had put them, a
taught subject kept its identity in unseen scenes in 6 to 38 % of the pictures; now nearly always (see the README).
"""
