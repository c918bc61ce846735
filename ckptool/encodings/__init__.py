"""How numbers are stored: scaled fp8, MX and NV fp4, packed integers, GPTQ, AWQ, bitsandbytes, HQQ, MLX, torchao, GGUF.

`registry.recognise` finds encoded tensors in headers, `registry.settle` reads the few bytes that describe some of them,
`registry.decode` gives rows of float32. Each scheme is one file in `schemes/`. Knows core only.
"""
