# make package: Debian packages and archives by CPack, from the components of the install rules.
#   .deb     ffai (program), libffai0 (shared library), libffai-dev (header, static library, pkg-config, CMake), ffai-cuda (GPU module)
#   .tar.gz  ffai (all but the GPU module; runs from any folder), ffai-cuda (unpacked over it)
# Times are those of the commit (SOURCE_DATE_EPOCH wins), owners are root, orders are fixed: the same sources give the same bytes
# (tools/reproducible.sh).
if(FFAI_SANITIZE OR FFAI_COVERAGE OR NOT TARGET ffai OR NOT TARGET ffai_shared OR CMAKE_CROSSCOMPILING)
  return()
endif()
set(CPACK_GENERATOR "TGZ")
find_program(FFAI_DPKG_SHLIBDEPS dpkg-shlibdeps)
if(FFAI_DPKG_SHLIBDEPS)
  list(APPEND CPACK_GENERATOR DEB)
endif()
set(CPACK_PACKAGE_NAME ffai)
set(CPACK_PACKAGE_VENDOR "the ffai authors")
set(FFAI_MAINTAINER "the ffai authors <ffai@localhost>" CACHE STRING "Who packages: Maintainer of the Debian packages")
set(CPACK_PACKAGE_CONTACT "${FFAI_MAINTAINER}")
set(CPACK_STRIP_FILES ON)
set(CPACK_THREADS 1)
set(CPACK_SOURCE_GENERATOR "")
set(CPACK_COMPONENTS_ALL ffai libffai0 libffai-dev)
if(TARGET ffai_cuda)
  list(APPEND CPACK_COMPONENTS_ALL ffai-cuda)
endif()
set(CPACK_PROJECT_CONFIG_FILE ${PROJECT_SOURCE_DIR}/cmake/cpack_generator.cmake)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/cpack_staged.cmake)
set(CPACK_POST_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/cpack_archive.cmake)
set(CPACK_FFAI_SOURCE_DIR ${PROJECT_SOURCE_DIR})
set(CPACK_FFAI_MAINTAINER "${FFAI_MAINTAINER}")
string(TOLOWER "${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}" CPACK_SYSTEM_NAME)

# archives
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
foreach(c ffai libffai0 libffai-dev)
  string(TOUPPER ${c} C)
  set(CPACK_COMPONENT_${C}_GROUP main)
endforeach()
set(CPACK_COMPONENT_FFAI-CUDA_GROUP cuda)
set(CPACK_ARCHIVE_MAIN_FILE_NAME ffai-${PROJECT_VERSION}-${CPACK_SYSTEM_NAME})
set(CPACK_ARCHIVE_CUDA_FILE_NAME ffai-cuda-${PROJECT_VERSION}-${CPACK_SYSTEM_NAME})
set(CPACK_PACKAGE_FILE_NAME ffai-${PROJECT_VERSION}-${CPACK_SYSTEM_NAME})

# Debian packages
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_HOMEPAGE "")
set(deb_version ${PROJECT_VERSION}-1)
list(JOIN FFAI_DEBIAN_PACKAGES ", " deb_dev)

set(CPACK_DEBIAN_FFAI_PACKAGE_NAME ffai)
set(CPACK_DEBIAN_FFAI_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_FFAI_PACKAGE_SUGGESTS "ffai-cuda, bash-completion, ca-certificates")
set(CPACK_COMPONENT_FFAI_DESCRIPTION "runs published model checkpoints
One program that runs checkpoints in HuggingFace, mlx and GGUF layout as they
are published, on the processor or an NVIDIA GPU: chat, generation, embeddings,
conversion, measurements, downloads from model hubs. No Python, no conversion.")

set(CPACK_DEBIAN_LIBFFAI0_PACKAGE_NAME libffai0)
set(CPACK_DEBIAN_LIBFFAI0_PACKAGE_SECTION libs)
file(WRITE ${PROJECT_BINARY_DIR}/shlibs "libffai ${PROJECT_VERSION_MAJOR} libffai0 (>= ${PROJECT_VERSION})\n")
set(CPACK_DEBIAN_LIBFFAI0_PACKAGE_CONTROL_EXTRA ${PROJECT_BINARY_DIR}/shlibs ${PROJECT_SOURCE_DIR}/packaging/triggers)
set(CPACK_DEBIAN_LIBFFAI0_PACKAGE_SUGGESTS ffai-cuda)
set(CPACK_COMPONENT_LIBFFAI0_DESCRIPTION "runs published model checkpoints - shared library
libffai loads checkpoints in HuggingFace, mlx and GGUF layout and computes
with them on the processor or an NVIDIA GPU, through a C interface.")

set(CPACK_DEBIAN_LIBFFAI-DEV_PACKAGE_NAME libffai-dev)
set(CPACK_DEBIAN_LIBFFAI-DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBFFAI-DEV_PACKAGE_DEPENDS "libffai0 (= ${deb_version}), ${deb_dev}")
set(CPACK_COMPONENT_LIBFFAI-DEV_DESCRIPTION "runs published model checkpoints - development files
Header, static library, pkg-config file, CMake package and examples of libffai.")

set(CPACK_DEBIAN_FFAI-CUDA_PACKAGE_NAME ffai-cuda)
set(CPACK_DEBIAN_FFAI-CUDA_PACKAGE_SECTION contrib/utils)
set(CPACK_DEBIAN_FFAI-CUDA_PACKAGE_DEPENDS "ffai (= ${deb_version}) | libffai0 (= ${deb_version})")
set(CPACK_DEBIAN_FFAI-CUDA_PACKAGE_RECOMMENDS libcuda1)
set(CPACK_DEBIAN_FFAI-CUDA_PACKAGE_SUGGESTS "libcublaslt12, libnccl2")
set(CPACK_COMPONENT_FFAI-CUDA_DESCRIPTION "runs published model checkpoints - module for NVIDIA GPUs
The GPU backend that ffai and libffai open when a GPU is asked for. It needs
NVIDIA's driver, cuBLASLt for prompts, and NCCL for several GPUs.")
include(CPack)
cpack_add_component_group(main)
cpack_add_component_group(cuda)
