"""torch's containers: zip archives, legacy files, TorchScript; read and written."""
