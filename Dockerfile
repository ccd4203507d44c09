# docker build -t emotion-search . && docker run --rm -it emotion-search       (docs/install.md has more)
FROM python:3.13-slim

# requirements-gpu.txt for an NVIDIA GPU: it has all of requirements.txt, and CUDA's libraries.
ARG REQUIREMENTS=requirements.txt
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY requirements*.txt ./
RUN pip install --no-cache-dir uv && uv venv /opt/venv \
    && uv pip install --python /opt/venv/bin/python --no-cache -r "$REQUIREMENTS"
COPY . .
RUN python scripts/adopt_venv.py && chown -R 1000 .

# Any user may run it (docker run --user), so its home is a folder that each can write to.
ENV HOME=/tmp USER=emotion GIT_PYTHON_REFRESH=quiet
USER 1000
CMD ["mlflow", "run", "."]
