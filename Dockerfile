# One image for every service of a deployment (SuperLink, executors, SuperNodes, door, supervisor, one-shot services) and a
# small one for the reverse proxy, both from the same base. `docker compose build` makes them.
#
# Order: what is heavy and seldom changes comes first. PyTorch is a layer of its own that is built once and kept until
# PyTorch's pins in constraints.txt change; a change of the source rebuilds seconds, not minutes.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore


# What the next two layers depend on, cut out of its files, so that other edits of these files rebuild nothing.
FROM base AS pins
COPY constraints.txt pyproject.toml /pins/
RUN grep -E '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==' /pins/constraints.txt >/pins/torch.txt \
    && grep -vE '^(#|(pytest|ruff|mypy|hypothesis|execnet)([-_=]|$))' /pins/constraints.txt >/pins/all.txt \
    && python -c 'import tomllib; print(*tomllib.load(open("/pins/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        >/pins/requirements.txt


FROM base AS torch
# Another package index for PyTorch's two wheels, say one of builds without CUDA, which are a fifth of the size:
#   docker compose build --build-arg TORCH_INDEX_URL=…
ARG TORCH_INDEX_URL=
COPY --from=pins /pins/torch.txt /tmp/torch.txt
RUN if [ -n "$TORCH_INDEX_URL" ]; then \
        grep -E '^torch(vision)?==' /tmp/torch.txt >/tmp/two.txt \
        && pip install --index-url "$TORCH_INDEX_URL" --constraint /tmp/two.txt torch torchvision; \
    else \
        pip install --constraint /tmp/torch.txt torch torchvision; \
    fi && rm -f /tmp/torch.txt /tmp/two.txt


FROM torch AS packages
COPY --from=pins /pins/all.txt /pins/requirements.txt /tmp/pins/
RUN pip install --constraint /tmp/pins/all.txt --requirement /tmp/pins/requirements.txt && rm -r /tmp/pins


FROM base AS wheel
RUN pip install 'hatchling>=1.27'
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY fedunlearn fedunlearn
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .


# nginx between the clients' networks and the SuperLink: see deploy/proxy.conf.
FROM base AS proxy
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light && rm -rf /var/lib/apt/lists/*
COPY deploy/proxy.conf /etc/nginx/nginx.conf
USER 10001:10001
EXPOSE 8443
CMD ["nginx", "-g", "daemon off;"]


FROM packages AS fedunlearn
# Every folder that a volume is mounted on belongs to the user: a new named volume takes over owner and mode.
RUN groupadd --gid 10001 fedunlearn && useradd --uid 10001 --gid 10001 --home-dir /home/fedunlearn --create-home fedunlearn \
    && for folder in authority trust superlink proxy door serverapp operator client clientapp public; do \
           install -d -m 0700 -o 10001 -g 10001 /keys/$folder; \
       done \
    && chmod 0755 /keys/trust \
    && install -d -m 0700 -o 10001 -g 10001 /roster /superlink /federation /flower /data /parts /runs
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist pip install --no-deps /dist/*.whl
# The app bundle, as `flwr run` builds it from the same files, is installed beforehand in a folder that the user cannot
# write to. Flower starts an installed bundle and unpacks one that it does not know; the second fails here. So the server
# and every client run the code of their own image, reviewed by whoever built it, and no other.
WORKDIR /opt/fedunlearn/app
COPY pyproject.toml README.md LICENSE .gitignore ./
COPY experiments experiments
COPY fedunlearn fedunlearn
COPY --chown=10001:10001 deploy/flower.toml /flower/config.toml
ENV FLWR_HOME=/opt/fedunlearn/flower \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1 \
    MPLCONFIGDIR=/tmp/matplotlib
RUN cd /tmp && flwr build --app /opt/fedunlearn/app && flwr install /tmp/*.fab && rm /tmp/*.fab \
    && python -m compileall -q /opt/fedunlearn/flower/apps
COPY deploy/keys.py deploy/register.py deploy/health.py deploy/supernode.py /opt/fedunlearn/deploy/
USER 10001:10001
