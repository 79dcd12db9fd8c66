"""The graph rewrites: one pass, one file. Shipped as ``onnxcomp.passes``."""

if __name__ != "onnxcomp.passes":
    raise ImportError("import this package as onnxcomp.passes")
