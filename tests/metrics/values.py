"""Arrays to compare."""

import math

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

NAN, INF = math.nan, math.inf

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=6)
VALUES = st.floats(-1e6, 1e6, width=32).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@st.composite
def pairs(draw, dtype=np.float32, values=VALUES):
    shape = draw(SHAPES)
    return tuple(draw(hnp.arrays(dtype, shape, elements=values)) for _ in range(2))


def array(*values):
    return np.array(values, dtype=np.float32)
