"""The compiled parts: decoding, pooling and atomic words (stream/), judging (models/)."""

from setuptools import Extension, setup

FLAGS = ["-O3", "-std=c11", "-fno-strict-aliasing", "-Wall", "-Wextra"]

setup(
    ext_modules=[
        Extension(
            "hitfinder.stream._kernels",
            sources=[
                f"stream/_{name}.c" for name in ("kernels", "lz4", "unshuffle", "pool", "reduce")
            ],
            depends=[f"stream/_{name}.h" for name in ("kernels", "planes", "fields")],
            extra_compile_args=FLAGS,
        ),
        Extension(
            "hitfinder.models._cells",
            sources=[
                f"models/_{name}.c" for name in ("cells", "background", "above", "scan", "tails")
            ],
            depends=["models/_cells.h"],
            # No fused multiply-add: sums are rounded as torch rounds them.
            extra_compile_args=[
                *FLAGS,
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
            ],
        ),
        Extension(
            "hitfinder.models._places",
            sources=[
                f"models/_{name}.c"
                for name in ("places", "window", "climb", "beside", "tiles", "image")
            ],
            depends=["models/_places.h", "models/_image.h"],
            # As above: every core says the same of a place.
            extra_compile_args=[
                *FLAGS,
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
            ],
        ),
        Extension(
            "hitfinder.models._spots",
            sources=["models/_spots.c", "models/_image.c"],
            depends=["models/_image.h"],
            extra_compile_args=[*FLAGS, "-fno-math-errno", "-fno-trapping-math"],
        ),
        Extension("hitfinder.models._gate", sources=["models/_gate.c"], extra_compile_args=FLAGS),
        Extension(
            "hitfinder.models._lit",
            sources=["models/_lit.c", "models/_image.c"],
            depends=["models/_image.h"],
            extra_compile_args=FLAGS,
        ),
        Extension(
            "hitfinder.models._posterior",
            sources=["models/_posterior.c"],
            extra_compile_args=FLAGS,
        ),
    ]
)
