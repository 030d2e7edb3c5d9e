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

The weights in `dreamctl/builtin/model` are from one such training on two shared CPU cores in two hours, with these
differences from what the code does now: the text stage had 450 steps and no names; after 4,011 UNet steps the text
encoder learnt the names by imitation (500 steps: a caption with a name must give the states that its own earlier
self gives for the same person in words); after 4,947 steps the nonce words were moved to their middle (280 steps of
the same imitation); and the UNet was stopped after 7,862 of its 9,000 steps (503,000 samples), its averaged
weights being taken. Now names and middle are there from the first step. Before the nonce words were moved, a taught
subject kept its identity in unseen scenes in 6 to 38 % of the pictures; after it, in 75 to 100 %.
"""
