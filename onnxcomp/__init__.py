"""Make an ONNX model measurably smaller and faster inside an accuracy budget, or learn why not."""
