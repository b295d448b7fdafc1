# Finds Debian packages through pkg-config and says which one to install when it is missing.
find_program(PKG_CONFIG_EXECUTABLE NAMES pkg-config pkgconf)
if(NOT PKG_CONFIG_EXECUTABLE)
  message(FATAL_ERROR "pkg-config not found. On Debian: apt-get install pkg-config (or run `make`, which installs what is missing)")
endif()
find_package(PkgConfig REQUIRED)

set(FFAI_PACKAGES "")         # prefixes: the imported targets are PkgConfig::<prefix>
set(FFAI_PACKAGE_MODULES "")  # pkg-config modules, for ffai.pc and the CMake package

# ffai_package(PREFIX module debian-package purpose): a library that libffai itself links.
macro(ffai_package prefix module debian purpose)
  ffai_package_find(${prefix} ${module} ${debian} ${purpose})
  list(APPEND FFAI_PACKAGES ${prefix})
  list(APPEND FFAI_PACKAGE_MODULES ${module})
endmacro()

# The same for something that only a part of the build needs (tests).
macro(ffai_package_find prefix module debian purpose)
  pkg_check_modules(${prefix} QUIET IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${prefix}_FOUND)
    message(FATAL_ERROR "${module} (${purpose}) not found. On Debian: apt-get install ${debian} (or run `make`, which installs what is missing)")
  endif()
endmacro()
