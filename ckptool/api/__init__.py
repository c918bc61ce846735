"""The public functions and what they return; `ckptool` imports each when it is first asked for."""
