# One image for web and workers: the same code, another command.
FROM python:3.11-slim-bookworm

# E.g. PIP_ARGS="--extra-index-url …" for a smaller torch without CUDA.
ARG PIP_ARGS=""
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
WORKDIR /srv/paredown
COPY pyproject.toml README.md ./
COPY app app
COPY workers workers
COPY db db
RUN pip install ${PIP_ARGS} '.[sample]' \
    && useradd --create-home --uid 10001 paredown \
    && mkdir /data \
    && chown paredown /data
USER paredown
ENV PAREDOWN_DATA=/data
VOLUME /data
EXPOSE 8501
CMD ["paredown", "up"]
