"""The C++ kernel built for 64-bit Arm and run by an emulator, where both are installed."""

from __future__ import annotations

import shutil
import struct
import subprocess
from types import SimpleNamespace

import pytest
import torch

from mtvision.ops import selective_scan
from mtvision.ops.scan import build, cpp_backend

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
        reason=f"no {COMPILER} or {EMULATOR} here (Debian: g++-aarch64-linux-gnu, qemu-user)",
    ),
]

# Reads numbers, memory and places from a file, calls the kernel, and writes the memory back.
PROGRAM = r"""
#include "kernel.cpp"
#include <cstdio>
#include <vector>
int main(int, char** argv) {
  FILE* in = fopen(argv[2], "rb");
  auto next = [&] { int64_t x; if (fread(&x, 8, 1, in) != 1) exit(3); return x; };
  std::vector<int64_t> n(next());
  for (auto& x : n) x = next();
  std::vector<std::vector<char>> memory(next());
  for (auto& m : memory) {
    m.resize(next() + 64);
    if (fread(m.data(), 1, m.size() - 64, in) + 64 != m.size()) exit(3);
  }
  std::vector<void*> p(next());
  for (auto& x : p) { int64_t i = next(), at = next(); x = i < 0 ? nullptr : memory[i].data() + at; }
  fclose(in);
  const std::string name = argv[1];
  if (name == "forward_float32") scan_forward_float32(n.data(), p.data());
  else if (name == "backward_float32") scan_backward_float32(n.data(), p.data());
  else if (name == "forward_float64") scan_forward_float64(n.data(), p.data());
  else if (name == "backward_float64") scan_backward_float64(n.data(), p.data());
  else return 4;
  FILE* out = fopen(argv[2], "wb");
  for (auto& m : memory) fwrite(m.data(), 1, m.size() - 64, out);
  fclose(out);
  return vector_bytes() == 16 ? 0 : 5;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aarch64")
    (folder / "main.cpp").write_text("#include <cstdlib>\n#include <string>\n" + PROGRAM)
    flags = [
        "-O3",
        "-std=c++17",
        "-fno-math-errno",
        "-pthread",
        "-static",
        f"-I{build.LIBRARY.sources[0].parent}",
    ]
    command = [COMPILER, *flags, str(folder / "main.cpp"), "-o", str(folder / "main")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "main"


def emulated(program):
    """`cpp_backend._call` in the emulator: memory goes there and back as a file."""

    def call(name, scan, tensors, layouts, plan):
        threads, runs, _ = plan
        numbers = [scan.groups, scan.width, scan.states, scan.length, scan.height, cpp_backend.CHUNK]
        numbers += [int(scan.walk), int(scan.softplus), threads, len(runs)]
        numbers += [value for row in (*layouts, *runs) for value in row]
        given = [item for item in tensors if item is not None]
        storages = {item.untyped_storage().data_ptr(): item.untyped_storage() for item in given}
        order = list(storages)
        memory = [torch.tensor([], dtype=torch.uint8).set_(storages[key]) for key in order]
        content = struct.pack(f"<{len(numbers) + 1}q", len(numbers), *numbers)
        content += struct.pack("<q", len(memory))
        for item in memory:
            content += struct.pack("<q", item.numel()) + item.numpy().tobytes()
        content += struct.pack("<q", len(tensors))
        for item in tensors:
            start = None if item is None else item.untyped_storage().data_ptr()
            place = (-1, 0) if start is None else (order.index(start), item.data_ptr() - start)
            content += struct.pack("<qq", *place)
        file = program.parent / "call"
        file.write_bytes(content)
        stored = f"{name}_{str(scan.u.dtype).removeprefix('torch.')}"
        subprocess.run([EMULATOR, str(program), stored, str(file)], check=True)
        left = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
        for item, found in zip(memory, left.split([item.numel() for item in memory]), strict=True):
            item.copy_(found)

    return call


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 4e-6)])
def test_arm_gives_the_numbers_of_the_reference(program, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(cpp_backend, "load_kernel", lambda: SimpleNamespace(vector_bytes=lambda: 16))
    monkeypatch.setattr(cpp_backend, "_call", emulated(program))
    draw = torch.Generator().manual_seed(0)
    shapes = [(1, 10, 70), (1, 10, 70), (10, 5), (1, 2, 5, 70), (1, 2, 5, 70), (10,), (10,)]
    given = [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes]
    given[2] = -given[2].abs() - 0.1
    found = []
    for backend in ("cpp", "reference"):
        u, delta, A, B, C, D, bias = leaves = [item.clone().requires_grad_() for item in given]
        y, last = selective_scan(u, delta, A, B, C, D, None, bias, True, True, backend=backend)
        found.append([y, last, *torch.autograd.grad(y.square().sum() + last.sum(), leaves)])
    for got, want in zip(*found, strict=True):
        assert ((got - want).abs().max() / want.abs().max()).item() < tolerance
