"""Patches: what makes one checkpoint of another, extracted (`extract`) and applied (`apply`).

A patch is a safetensors file. Tensors that the base lacks are in it as they are; a tensor that differs from one of the
base is in it as bytes of `ckptool.encodings.delta`. A manifest says what becomes of every key, with the digests that
bind the patch to its base.

A LoRA (`lora`) is the lossy and portable relative: the closest thin factors of every matrix that changed.
"""
