"""The one compiled part: block decoding, pooling, atomic words (stream/_kernels.h)."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "hitfinder.stream._kernels",
            sources=[f"stream/_{name}.c" for name in ("kernels", "lz4", "unshuffle", "pool")],
            depends=["stream/_kernels.h"],
            extra_compile_args=["-O3", "-std=c11", "-fno-strict-aliasing", "-Wall", "-Wextra"],
        )
    ]
)
