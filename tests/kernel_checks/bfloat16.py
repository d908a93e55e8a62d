"""bfloat16 in Triton's interpreter, for the tests. It keeps such numbers as 16-bit integers and multiplies these.

`mended` puts two functions of the interpreter right: the conversion to and from float32, and the product of matrices.
They are private, so it says whether they are there still.
"""

import contextlib
import inspect

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def there() -> bool:
    """Whether this Triton has the two functions, with the arguments that we know."""
    convert = getattr(interpreter, "_convert_float", None)
    dot = getattr(interpreter.InterpreterBuilder, "create_dot", None)
    takes = [None if fn is None else [*inspect.signature(fn).parameters][:4] for fn in (convert, dot)]
    return takes == [["input", "input_dtype", "output_dtype", "rounding_mode"], ["self", "a", "b", "d"]]


def widen(bits: np.ndarray) -> np.ndarray:
    """bfloat16 as uint16 to float32: the same bits, and sixteen zeros."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(values: np.ndarray) -> np.ndarray:
    """float32 to bfloat16 as uint16: the nearest one, of two the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


@contextlib.contextmanager
def mended():
    """The interpreter with a right bfloat16."""
    convert, dot = interpreter._convert_float, interpreter.InterpreterBuilder.create_dot

    def converted(data, source, target, rounding):
        if (source, target) == (tl.bfloat16, tl.float32):
            return widen(data).view(np.uint32)
        if (source, target) == (tl.float32, tl.bfloat16):
            return narrow(data.view(np.float32))
        return convert(data, source, target, rounding)

    def wide(x):
        return interpreter.TensorHandle(widen(x.data), tl.float32) if x.dtype.scalar == tl.bfloat16 else x

    def product(self, a, b, d, *rest):
        return dot(self, wide(a), wide(b), d, *rest)

    interpreter._convert_float, interpreter.InterpreterBuilder.create_dot = converted, product
    try:
        yield
    finally:
        interpreter._convert_float, interpreter.InterpreterBuilder.create_dot = convert, dot
