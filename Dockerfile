# For a machine with an NVIDIA GPU: docker build -t frozen-cache . && docker run --gpus all -v $PWD:/work frozen-cache --help
FROM python:3.12-slim
# Triton launches kernels (extra gpu) through a small C file that it compiles at the first one.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/frozen-cache
COPY . .
RUN pip install --no-cache-dir --constraint requirements.lock ".[gpu,video,onnx]"
WORKDIR /work
ENTRYPOINT ["frozen-cache"]
