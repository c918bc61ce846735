"""How fast `check` is: ``python -m tests.bench.bench_check``.

With `nonfinite` and `lock` it reads every byte, so the baseline is `sha256sum` of the same file: a lock is SHA-256,
which two threads compute of two tensors at a time. Rules that read headers only are held against `inspect`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.bench.files import make
from tests.bench.harness import bench_folder, ckptool, report, run_interleaved

POLICY = 'dtypes = ["bfloat16"]\nmax-size = "2GB"\nlock = "weights.lock"\n'


def bench_values(folder: Path) -> None:
    """1 GB, all rules."""
    policy = folder / "ckptool.toml"
    policy.write_text(POLICY, encoding="utf-8")
    for kind, name in (("safetensors", "in.safetensors"), ("zip", "in.pth")):
        path = make(kind, folder / name)
        subprocess.run(ckptool("check", path, "--policy", policy, "--update-lock"), check=True, capture_output=True)
        contenders = {
            "check nonfinite, dead, lock": ckptool("check", path, "--policy", policy),
            "check nonfinite, lock": ckptool(
                "check", path, "--policy", policy, "--rule", "nonfinite", "--rule", "lock"
            ),
            "check nonfinite": ckptool("check", path, "--policy", policy, "--rule", "nonfinite"),
            "sha256sum": ["sha256sum", str(path)],
        }
        if shutil.which("openssl"):  # which uses the processor's instructions for it; not every sha256sum does
            contenders["openssl sha256"] = ["openssl", "dgst", "-sha256", str(path)]
        report(f"check, 1 GB, 150 tensors, {kind}", run_interleaved(contenders, rounds=5), "sha256sum")
        path.unlink()
        (folder / "weights.lock").unlink()


def bench_headers(folder: Path) -> None:
    """Rules that read no values: 1 GB, and 100,000 keys."""
    policy = folder / "ckptool.toml"
    policy.write_text(
        'dtypes = ["bfloat16", "float32"]\nlevels = { nonfinite = "off", dead = "off" }\n', encoding="utf-8"
    )
    for kind, name in (("safetensors", "in.safetensors"), ("zip", "in.pth"), ("keys-safetensors", "many.safetensors")):
        path = make(kind, folder / name)
        contenders = {
            "check, headers only": ckptool("check", path, "--policy", policy),
            "inspect": ckptool("inspect", path),
        }
        report(f"check against inspect, {kind}", run_interleaved(contenders, rounds=5), "inspect")
        path.unlink()


def main() -> None:
    with bench_folder() as folder:
        bench_values(folder)
        bench_headers(folder)


if __name__ == "__main__":
    main()
