# syntax=docker/dockerfile:1
# Two stages: the wheels are gathered in the first, the second holds nothing but Python, the locked wheels and ours.
FROM python:3.12-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/neutroflag \
 && /opt/neutroflag/bin/pip install --require-hashes --only-binary :all: -r requirements.lock \
 && python -m venv /build \
 && /build/bin/pip install --require-hashes --only-binary :all: -r requirements-build.lock
COPY . .
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/neutroflag/bin/pip install --no-deps /wheels/neutroflag-*.whl

FROM python:3.12-slim
LABEL org.opencontainers.image.title="NeutroFlag" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 neutroflag \
 && useradd --system --uid 10001 --gid neutroflag --home-dir /var/lib/neutroflag --create-home neutroflag
COPY --from=build /opt/neutroflag /opt/neutroflag
ENV PATH=/opt/neutroflag/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NEUTROFLAG_CONFIG=/etc/neutroflag/neutroflag.toml
COPY deploy/neutroflag.container.toml /etc/neutroflag/neutroflag.toml
USER 10001:10001
WORKDIR /var/lib/neutroflag
VOLUME /var/lib/neutroflag
EXPOSE 2575 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=10s --retries=3 CMD ["neutroflag", "health"]
ENTRYPOINT ["neutroflag"]
CMD ["serve"]
