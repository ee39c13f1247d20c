"""The one compiled part: block decoding, pooling and the ring's atomic words (stream/_kernels.c)."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "hitfinder.stream._kernels",
            sources=["stream/_kernels.c"],
            extra_compile_args=["-O3", "-std=c11", "-fno-strict-aliasing"],
        )
    ]
)
