# The front door: each target installs what it needs where it may, configures, builds and runs. CMake does the work (CMakePresets.json).
.DEFAULT_GOAL := ffai
PREFIX  ?= /usr/local
DESTDIR ?=
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
SECONDS_PER_FUZZ ?= 10
MODEL   ?=
B := build/release

# build PRESET[,TARGET]
define build
	@cmake --preset $(1) >build/$(1).configure.log 2>&1 || { cat build/$(1).configure.log; exit 1; }
	@cmake --build --preset $(1) -j $(JOBS) $(if $(2),--target $(2))
endef

.PHONY: ffai demo test test-real test-cuda check format install package reproducible coverage asan tsan debug valgrind clang fuzz clean help deps

ffai: deps   ## build the program and the libraries, leave ./ffai
	$(call build,release,product)
	@ln -sfn $(B)/ffai ffai
	@./ffai version

deps:
	@mkdir -p build
	@tools/deps.sh build

demo: deps   ## generate text with the model that the repository carries; the program alone, no GPU module
	$(call build,release,ffai)
	@ln -sfn $(B)/ffai ffai
	@tools/demo.sh

test: deps   ## the whole suite; needs no model hub
	$(call build,release)
	@ln -sfn $(B)/ffai ffai
	@ctest --preset release -j $(JOBS)

test-real: ffai   ## compare with the official implementation on real weights (fetches about 250 MB)
	@tools/deps.sh real
	$(call build,release,real_check)
	@tests/real/run.sh

test-cuda: deps   ## the GPU tests on this machine's NVIDIA GPU (needs nvcc)
	$(call build,release)
	@ln -sfn $(B)/ffai ffai
	@tools/test_cuda.sh $(B)

check: deps   ## format, dependency rules, shell scripts, file rules
	@tools/deps.sh check
	@tools/check.sh

format: ## clang-format all sources
	@git ls-files '*.c' '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format-14 -i

install: ffai   ## install under PREFIX (default /usr/local), staged under DESTDIR
	@cmake --preset release -DCMAKE_INSTALL_PREFIX=$(PREFIX) >build/release.configure.log 2>&1 || { cat build/release.configure.log; exit 1; }
	@cmake --build --preset release -j $(JOBS) >/dev/null
	@DESTDIR=$(DESTDIR) cmake --install $(B)

package: deps   ## Debian packages and archives in build/package/out, tested
	@command -v dpkg-shlibdeps >/dev/null || tools/deps.sh package
	$(call build,package,product)
	@rm -rf build/package/out && mkdir -p build/package/out && cd build/package && umask 022 && cpack -C Release -B out >cpack.log || { cat cpack.log; exit 1; }
	@rm -rf build/package/out/_CPack_Packages
	@FFAI=$(CURDIR)/build/package/ffai FFAI_SOURCE_DIR=$(CURDIR) FFAI_BUILD_DIR=$(CURDIR)/build/package FFAI_PACKAGES=$(CURDIR)/build/package/out tests/package/test_packages.sh
	@ls build/package/out/*

reproducible: deps   ## build the commit twice, elsewhere and as somebody else: the same bytes? (several minutes)
	@tools/deps.sh package
	@tools/reproducible.sh

coverage: deps   ## lines of the parsers that tests execute: at least 90 %
	@tools/deps.sh coverage
	@tools/coverage.sh build/coverage $(JOBS)

debug asan tsan: deps   ## the suite in a debug, address+undefined or thread sanitizer build
	$(call build,$@)
	@ctest --preset $@ -j $(JOBS)

valgrind: ffai   ## the carried model under valgrind
	@tools/deps.sh ci
	@tools/valgrind.sh $(B)/ffai

clang: deps   ## everything built by clang, and the tests in which a compiler shows
	@tools/deps.sh ci
	$(call build,clang)
	@ctest --preset clang -j $(JOBS)

fuzz: deps   ## each fuzz target for SECONDS_PER_FUZZ seconds
	@tools/deps.sh ci
	$(call build,fuzz,fuzzers)
	@tools/fuzz.sh build/fuzz $(SECONDS_PER_FUZZ)

clean:   ## remove everything that was built
	@rm -rf build ffai

help:   ## this list
	@sed -n 's/^\([a-z][a-z -]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r t d; do printf '  make %-18s %s\n' "$$t" "$$d"; done
	@echo '  PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) JOBS=$(JOBS) SECONDS_PER_FUZZ=$(SECONDS_PER_FUZZ)'
