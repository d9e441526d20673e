# make demo, make test: each does its own set-up on a fresh Debian 12 machine with Rust.

.PHONY: help demo demo-guest test bench docs lint miri setup setup-gst install-gst
.DEFAULT_GOAL := help
# Where cargo puts what it builds.
TARGET := $(or $(CARGO_TARGET_DIR),target)

help:
	@echo 'make demo        a camera (or a test picture) on a display (or in this terminal) for 10 s'
	@echo 'make demo-guest  the same program in a virtual machine, on the vivid and vkms drivers'
	@echo 'make test        every test: native, loom, AddressSanitizer, and on real drivers in the virtual machine'
	@echo 'make bench       ours against GStreamer, as a table and as target/bench/*.json'
	@echo 'make install-gst the GStreamer plugin, for this user, or with PREFIX=/usr for all'
	@echo 'make docs        docs/elements.md from the elements themselves'
	@echo 'make lint        rustfmt, clippy and rustdoc'
	@echo 'make miri        tests that need no ioctl under Miri (needs a nightly toolchain with it)'

setup:
	@scripts/setup build

demo: setup
	cargo build --release -p shrbuf-examples --bin camera-to-display
	$(TARGET)/release/camera-to-display 10 $(TARGET)/camera-to-display.png
	@echo 'The last picture is in $(TARGET)/camera-to-display.png'

demo-guest: setup
	cargo build --release -p shrbuf-examples --bin camera-to-display
	@mkdir -p $(TARGET)/demo-guest
	guest/run --timeout 120 --out "$(abspath $(TARGET))/demo-guest" -- \
		$(TARGET)/release/camera-to-display 5 $(abspath $(TARGET))/demo-guest/screen.png
	@echo 'What was on the screen is in $(TARGET)/demo-guest/screen.png'

test: setup
	@scripts/setup gstreamer
	@scripts/setup desktop
	scripts/test

# Where GStreamer looks for a user's own plugins, and for everybody's.
gst = $(shell pkg-config --variable=$(1) gstreamer-1.0)
GST_USER_PLUGINS = $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/gstreamer-1.0/plugins
GST_PREFIX_PLUGINS = $(if $(filter $(PREFIX),$(call gst,prefix)),$(call gst,pluginsdir),$(PREFIX)/lib/gstreamer-1.0)
GST_PLUGINS = $(if $(PREFIX),$(GST_PREFIX_PLUGINS),$(GST_USER_PLUGINS))
# What has to be told of any other place.
GST_TOLD = $(if $(filter $(GST_PLUGINS),$(GST_USER_PLUGINS) $(call gst,pluginsdir)),,GST_PLUGIN_PATH=$(GST_PLUGINS) )
# DMA_DRM caps, where GStreamer has them.
GST_FEATURES = $(shell pkg-config --atleast-version=1.24 gstreamer-1.0 && echo --features v1_24)
PROFILE = release
install-gst: setup-gst
	cargo build --profile $(PROFILE) -p gst-plugin-shrbuf $(GST_FEATURES)
	install -D -m 755 $(TARGET)/$(PROFILE:dev=debug)/libgstshrbuf.so '$(DESTDIR)$(GST_PLUGINS)/libgstshrbuf.so'
	@echo 'Now: $(GST_TOLD)gst-inspect-1.0 shrbuf'

# Before what follows asks pkg-config.
setup-gst: setup
	@scripts/setup gstreamer

bench: setup
	scripts/setup desktop
	scripts/setup bench
	bench/run

docs: setup
	@scripts/setup gstreamer
	@printf '# Elements\n\n`make docs` writes this page from the elements themselves.\n\n' > docs/elements.md
	cargo run -q -p shrbuf-cli --features gstreamer -- inspect --markdown >> docs/elements.md

lint: setup
	@scripts/setup gstreamer
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p shrbuf-elements -p shrbuf-cli --features gstreamer --all-targets -- -D warnings
	# Of libraries, as one of them has the command's name.
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --lib --no-deps --features shrbuf-elements/gstreamer
	# And for GStreamer 1.24 and later, whichever there is here.
	bash -c '. scripts/gstreamer-any.sh && exec "$$@"' - cargo clippy --all-targets \
		-p gst-plugin-shrbuf -p shrbuf-gst-memory -p shrbuf-elements -p shrbuf-cli \
		--features gst-plugin-shrbuf/v1_24,shrbuf-gst-memory/v1_24,shrbuf-elements/gstreamer-v1_24 -- -D warnings

miri:
	cargo +nightly miri test -p shrbuf --lib
