# make install: program, both libraries, header, pkg-config file, CMake package, man page, completions. Each has the component (package) that it
# belongs to: ffai, libffai0, libffai-dev, and ffai-cuda in FfaiCuda.cmake (FfaiPackage.cmake makes packages of them).
include(CMakePackageConfigHelpers)

install(TARGETS ffai_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libffai-dev)
if(TARGET ffai_shared)
  install(TARGETS ffai_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT libffai0 NAMELINK_COMPONENT libffai-dev)
endif()
install(FILES include/ffai.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT libffai-dev)
install(FILES LICENSE docs/licences.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/ffai COMPONENT ffai)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/ffai COMPONENT libffai-dev FILES_MATCHING PATTERN "*.c")

# pkg-config: shared users need only -lffai; static users get the rest from the private fields. Paths stay relative to the .pc file so that a
# moved or DESTDIR-staged tree still works.
list(JOIN FFAI_PACKAGE_MODULES " " FFAI_PC_REQUIRES)
list(JOIN FFAI_SHARED_MODULES " " FFAI_SHARED_REQUIRES)
file(RELATIVE_PATH FFAI_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(${PROJECT_SOURCE_DIR}/cmake/ffai.pc.in ${PROJECT_BINARY_DIR}/ffai.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/ffai.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT libffai-dev)

set(FFAI_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/ffai)
set(FFAI_INSTALL_SHARED ${FFAI_SHARED})
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/ffai-config.cmake.in ${PROJECT_BINARY_DIR}/ffai-config.cmake
  INSTALL_DESTINATION ${FFAI_CMAKE_DIR} PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ffai-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ffai-config.cmake ${PROJECT_BINARY_DIR}/ffai-config-version.cmake DESTINATION ${FFAI_CMAKE_DIR}
  COMPONENT libffai-dev)

if(NOT TARGET ffai)
  return()
endif()
install(TARGETS ffai RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ffai)
# The program prints its own man page and completions from its option table, so they need a machine that can run it.
if(NOT CMAKE_CROSSCOMPILING)
  set(generated ${PROJECT_BINARY_DIR}/generated)
  add_custom_command(OUTPUT ${generated}/ffai.1 ${generated}/ffai.bash ${generated}/_ffai ${generated}/ffai.fish
    COMMAND ${CMAKE_COMMAND} -E make_directory ${generated}
    COMMAND ffai help --man > ${generated}/ffai.1
    COMMAND ffai help --completion bash > ${generated}/ffai.bash
    COMMAND ffai help --completion zsh > ${generated}/_ffai
    COMMAND ffai help --completion fish > ${generated}/ffai.fish
    DEPENDS ffai VERBATIM COMMENT "Writing man page and completions")
  add_custom_target(ffai_generated ALL DEPENDS ${generated}/ffai.1)
  install(FILES ${generated}/ffai.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT ffai)
  install(FILES ${generated}/ffai.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME ffai COMPONENT ffai)
  install(FILES ${generated}/_ffai DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions COMPONENT ffai)
  install(FILES ${generated}/ffai.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d COMPONENT ffai)
endif()
