# meshwright's job server and page. CPU: docker build -t meshwright .
# CUDA: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t meshwright:cuda .
#
# docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -v meshwright-jobs:/data -p 127.0.0.1:8765:8765 meshwright
FROM python:3.12-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src src
COPY examples/demo/orbit.mp4 examples/demo/orbit.mp4
RUN python -m venv /app \
    && /app/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" -c constraints.txt ".[app]"
# Kernels are compiled once, here: the root is read-only when the server runs.
ENV NUMBA_CACHE_DIR=/app/numba
RUN /app/bin/meshwright reconstruct examples/demo/orbit.mp4 --out /tmp/warm --time-budget 20 --turntable \
    && rm -rf /tmp/warm && chmod -R a+rX /app

FROM python:3.12-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin meshwright \
    && mkdir /data && chown meshwright /data
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH NUMBA_CACHE_DIR=/app/numba MESHWRIGHT_DATA=/data HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER meshwright
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD \
    ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/health', timeout=4)"]
# Beyond the container's own address a token is needed: it is printed at the start, or given as --token.
ENTRYPOINT ["meshwright", "serve", "--host", "0.0.0.0"]
