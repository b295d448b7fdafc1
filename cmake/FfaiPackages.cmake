# Finds Debian packages through pkg-config and says which one to install when it is missing.
find_program(PKG_CONFIG_EXECUTABLE NAMES pkg-config pkgconf)
if(NOT PKG_CONFIG_EXECUTABLE)
  message(FATAL_ERROR "pkg-config not found. On Debian: apt-get install pkg-config (or run `make`, which installs what is missing)")
endif()
find_package(PkgConfig REQUIRED)

set(FFAI_PACKAGES "")         # prefixes: the imported targets are PkgConfig::<prefix>
set(FFAI_PACKAGE_MODULES "")  # pkg-config modules, for ffai.pc and the CMake package
set(FFAI_SHARED_MODULES "")   # those of ffai_package_shared
set(FFAI_PC_LIBS "")          # and how they are linked, for ffai.pc
set(FFAI_DEBIAN_PACKAGES "")  # Debian packages of both, which a static libffai needs

# ffai_package(PREFIX module debian-package purpose): a library that libffai itself links.
macro(ffai_package prefix module debian purpose)
  ffai_package_find(${prefix} ${module} ${debian} ${purpose})
  list(APPEND FFAI_PACKAGES ${prefix})
  list(APPEND FFAI_PACKAGE_MODULES ${module})
  list(APPEND FFAI_DEBIAN_PACKAGES ${debian})
endmacro()

# The same for one that is linked as a shared library also into a static libffai: its own static form would ask users for the development
# files of everything below it.
macro(ffai_package_shared prefix module debian purpose)
  ffai_package_find(${prefix} ${module} ${debian} ${purpose})
  list(APPEND FFAI_PACKAGES ${prefix})
  list(APPEND FFAI_SHARED_MODULES ${module})
  list(APPEND FFAI_DEBIAN_PACKAGES ${debian})
  string(REPLACE ";" " " ffai_libs "${${prefix}_LDFLAGS}")
  string(APPEND FFAI_PC_LIBS " ${ffai_libs}")
endmacro()

# The same for something that only a part of the build needs (tests).
macro(ffai_package_find prefix module debian purpose)
  pkg_check_modules(${prefix} QUIET IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${prefix}_FOUND)
    message(FATAL_ERROR "${module} (${purpose}) not found. On Debian: apt-get install ${debian} (or run `make`, which installs what is missing)")
  endif()
endmacro()
