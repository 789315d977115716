# For a machine with an NVIDIA GPU: docker build -t frozen-cache . && docker run --gpus all -v $PWD:/work frozen-cache --help
FROM python:3.12-slim
WORKDIR /opt/frozen-cache
COPY . .
RUN pip install --no-cache-dir --constraint requirements.lock ".[gpu,video,onnx]"
WORKDIR /work
ENTRYPOINT ["frozen-cache"]
