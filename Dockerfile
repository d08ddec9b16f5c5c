# The one image of Vectorwright: operator, workers and store servers are commands of it.
#
#   docker build -t vectorwright:0.1.0 .
#   buildah bud --format docker --build-arg BASE=my-debian-with-python:12 -t vectorwright:0.1.0 .
#
# BASE is any Debian or Ubuntu image with Python 3.11 or newer as `python3`; both stages start from it, so that the
# interpreter that compiled the code is the one that runs it.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build

# The uv that wrote uv.lock: another one may read it differently.
ARG UV_VERSION=0.13.8
# The wheel is built by this one; everything that runs comes from uv.lock.
ARG HATCHLING_VERSION=1.27.0

# A slim Debian has neither certificates nor what makes virtual environments; the official Python images have both.
RUN set -eu; \
    if [ ! -e /etc/ssl/certs/ca-certificates.crt ] || ! python3 -c 'import ensurepip' 2>/dev/null; then \
        apt-get update -qq; \
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates python3-venv; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    python3 -m venv /opt/uv; \
    /opt/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"

ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/vectorwright \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true

WORKDIR /src

# Dependencies first: a change of the code does not install them again.
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-dev --all-extras --no-install-project --python "$(command -v python3)"

COPY README.md LICENSE ./
COPY operator operator
RUN set -eu; \
    echo "hatchling==${HATCHLING_VERSION}" > build-constraints.txt; \
    /opt/uv/bin/uv build --quiet --wheel --build-constraints build-constraints.txt --out-dir dist; \
    /opt/uv/bin/uv pip install --quiet --no-deps --python /opt/vectorwright/bin/python dist/*.whl


FROM ${BASE}

ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="vectorwright" \
      org.opencontainers.image.description="A Kubernetes operator for vector indexes in any store" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

# git (2.38 or newer) and ssh fetch what `source.git` names; certificates verify stores, embedding endpoints and
# sources. The user has a name because ssh looks it up.
RUN set -eu; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates git openssh-client; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log; \
    echo 'vectorwright:x:65532:' >> /etc/group; \
    echo 'vectorwright:x:65532:65532:Vectorwright:/tmp:/usr/sbin/nologin' >> /etc/passwd

COPY --from=build /opt/vectorwright /opt/vectorwright

# The root file system may be read-only: only the temporary directory is written to.
ENV PATH=/opt/vectorwright/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 65532:65532
WORKDIR /tmp
EXPOSE 8080

# For plain container engines and the default command. Kubernetes ignores it and has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python3", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]

ENTRYPOINT ["vectorwright"]
CMD ["operator"]
