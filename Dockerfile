# onnxcomp on the CPU.
#
#     docker build -t onnxcomp .
#     docker run --rm -v "$PWD:/models" --user "$(id -u):$(id -g)" onnxcomp check model.opt.onnx --max-size 5MB
#
# This file has not been built: no container engine was at hand. What it installs is what `pip install .[cpu,fast,images]`
# does, and a test checks that everything which that needs is copied.
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /source/
COPY onnxcomp /source/onnxcomp
COPY passes /source/passes
RUN pip install --no-cache-dir "/source[cpu,fast,images]" && rm -r /source

RUN useradd --create-home user && mkdir --mode 1777 /var/cache/numba
USER user
WORKDIR /models
# Whoever runs it may have no home of his own: numba keeps what it compiled there
ENV NUMBA_CACHE_DIR=/var/cache/numba PYTHONDONTWRITEBYTECODE=1

ENTRYPOINT ["onnxcomp"]
CMD ["--help"]
