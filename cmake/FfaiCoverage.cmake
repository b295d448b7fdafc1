# FFAI_COVERAGE: the parsers, which are what reads other people's bytes, count the lines that are executed; everything else is built as in a release, so
# that tests stay fast. tools/coverage.sh runs tests and makes the table.
if(NOT CMAKE_C_COMPILER_ID STREQUAL "GNU")
  message(FATAL_ERROR "FFAI_COVERAGE needs gcc")
endif()
set(FFAI_PARSERS "/src/(io|text|hub)/|/src/families/config\\.c$")
set(parsers ${FFAI_LIB_SOURCES})
list(FILTER parsers INCLUDE REGEX "${FFAI_PARSERS}")
set_source_files_properties(${parsers} PROPERTIES COMPILE_OPTIONS "--coverage;-O1")
link_libraries(gcov)
