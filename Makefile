# Two commands set everything up by themselves and are quick the second time: `make demo` and `make test`.
# Nothing is installed outside .venv but, as root on Debian, the packages named below.

VENV := .venv
STAMPS := .stamps
PYTHON ?=
PURE ?=
ARGS ?=
WORKERS ?= 4
export PYTHON
# Debian keeps nft and others where ordinary users do not look.
export PATH := $(PATH):/usr/sbin:/sbin

# With PURE=1 everything runs in pure Python even where the speedups are compiled.
ifneq ($(PURE),)
export WARREN_PURE := 1
endif

BUILD_PACKAGES := gcc libc6-dev libssl-dev python3-dev python3-venv
LAB_PACKAGES := bind9-dnsutils caddy coturn curl dbus-daemon dnsmasq-base faketime fish iperf3 iproute2 iputils-ping lftp \
  libnftables1 miniupnpc miniupnpd-nftables natpmpc nftables pebble postgresql procps slowhttptest \
  squid systemd tayga tftp-hpa tftpd-hpa vsftpd wireguard-go wireguard-tools zsh
# They and vsftpd exclude each other as packages.
UNPACKED_PACKAGES := proftpd-core pure-ftpd
BENCH_PACKAGES := libnginx-mod-stream nebula nginx-light socat

SPEEDUPS := $(wildcard hatch_build.py src/warren/_speed/*.pyx src/warren/_speed/*.pxd src/warren/_speed/*.h)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench fuzz format lock clean packages unpacked bench-packages bytecode
.NOTPARALLEL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-8s %s\n", $$1, $$2 }'
	@echo; echo 'PURE=1 does without the compiled speedups, PYTHON=path takes another Python, ARGS="…" is passed on.'

demo: packages $(STAMPS)/project bytecode ## set up, then show a network at work in the lab (about a minute)
	@$(VENV)/bin/warren demo $(ARGS)

test: packages unpacked $(STAMPS)/project $(STAMPS)/dev bytecode ## set up, then run all tests; ARGS="tests/unit -k name" runs some
	@tools/run-tests.sh $(VENV)/bin/python --numprocesses=$(WORKERS) $(ARGS)

check: $(STAMPS)/dev ## lint, formatting and types
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/mypy

bench: packages bench-packages $(STAMPS)/project bytecode ## measure side by side with wireguard-go and nebula (long)
	@$(VENV)/bin/python -m benchmarks.run $(ARGS)

fuzz: packages $(STAMPS)/project $(STAMPS)/fuzz ## fuzz every decoder; ARGS="stun_message --seconds 600" one for longer
	@$(VENV)/bin/python -m fuzz.run $(ARGS)

format: $(STAMPS)/dev ## put the sources into the agreed form
	@$(VENV)/bin/ruff check --quiet --fix . ; $(VENV)/bin/ruff format --quiet .

lock: $(STAMPS)/dev ## make requirements/*.txt anew; UPGRADE=1 takes newer versions
	@tools/lock.sh $(VENV)

clean: ## remove what was built and set up here
	@rm -rf $(VENV) $(STAMPS) build dist lab-artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	@rm -f src/warren/_speed/*.so src/warren/_speed/*.c

packages:
	@tools/debian-packages.sh $(BUILD_PACKAGES) $(LAB_PACKAGES)

unpacked: packages
	@tools/unpack-packages.sh $(STAMPS)/unpacked $(UNPACKED_PACKAGES)

bench-packages:
	@tools/debian-packages.sh $(BENCH_PACKAGES)

# As pip does for what it installs: where Python is told to write no bytecode, each process would compile all its modules again.
bytecode: $(STAMPS)/project
	@$(VENV)/bin/python -m compileall -q src

$(STAMPS)/venv: | $(STAMPS)
	@tools/install.sh $(VENV) venv
	@touch $@

$(STAMPS)/runtime: requirements/runtime.txt requirements/build.txt $(STAMPS)/venv
	@tools/install.sh $(VENV) locked runtime build
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/runtime
	@tools/install.sh $(VENV) locked dev
	@touch $@

$(STAMPS)/fuzz: requirements/fuzz.txt $(STAMPS)/runtime
	@tools/install.sh $(VENV) locked fuzz
	@touch $@

$(STAMPS)/project: pyproject.toml $(SPEEDUPS) $(STAMPS)/runtime | packages
	@tools/install.sh $(VENV) project
	@touch $@

$(STAMPS):
	@mkdir -p $@
