"""The compiled parts: decoding, pooling, atomic words (stream/_kernels.h), cells, posterior."""

from setuptools import Extension, setup

FLAGS = ["-O3", "-std=c11", "-fno-strict-aliasing", "-Wall", "-Wextra"]

setup(
    ext_modules=[
        Extension(
            "hitfinder.stream._kernels",
            sources=[f"stream/_{name}.c" for name in ("kernels", "lz4", "unshuffle", "pool")],
            depends=["stream/_kernels.h"],
            extra_compile_args=FLAGS,
        ),
        Extension(
            "hitfinder.models._cells",
            sources=["models/_cells.c"],
            # No fused multiply-add: sums are rounded as torch rounds them.
            extra_compile_args=[
                *FLAGS,
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
            ],
        ),
        Extension(
            "hitfinder.models._posterior",
            sources=["models/_posterior.c"],
            extra_compile_args=FLAGS,
        ),
    ]
)
