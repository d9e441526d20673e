# shellcheck shell=bash
# To be sourced: builds for a GStreamer that this machine's is older than, such as with the feature `gstreamer-v1_24`. The bindings
# need no headers, only libraries of these names; what those have not got shows when a program is linked, or starts.
for library in gstreamer:gstreamer gstreamer_base:gstbase gstreamer_app:gstapp gstreamer_video:gstvideo gstreamer_allocators:gstallocators; do
    name=${library%:*}
    export "SYSTEM_DEPS_${name^^}_1_0_NO_PKG_CONFIG=1" "SYSTEM_DEPS_${name^^}_1_0_LIB=${library#*:}-1.0"
done
