# Tests, found by their names:
#   tests/<suite>/test_*.c    one cmocka program and one CTest entry each
#   tests/<suite>/test_*.sh   a script; FFAI (program), FFAI_SOURCE_DIR, FFAI_BUILD_DIR in its environment; exit 77 = skipped
#   tests/<suite>/*_tool.c    a helper program of scripts in tools/
#   tests/families/gen_*.c    the generator of tiny checkpoints: linked into that suite's tests, and a program of its own
#   tests/families/parity.c   one CTest entry per group of fixtures
#   tests/fuzz/fuzz_*.c       replayed over tests/fuzz/corpus/<name>; with FFAI_FUZZ a libFuzzer program too
ffai_package_find(CMOCKA cmocka libcmocka-dev "unit tests")
file(GLOB FFAI_TEST_SOURCES CONFIGURE_DEPENDS tests/*/test_*.c)

foreach(f ${FFAI_TEST_SOURCES})
  get_filename_component(name ${f} NAME_WE)
  get_filename_component(dir ${f} DIRECTORY)
  get_filename_component(suite ${dir} NAME)
  add_executable(${name} ${f})
  target_link_libraries(${name} PRIVATE ffai_static PkgConfig::CMOCKA)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE FFAI_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${suite}.${name} COMMAND ${name})
  set_tests_properties(${suite}.${name} PROPERTIES LABELS ${suite} TIMEOUT 600)
endforeach()

file(GLOB FFAI_TEST_TOOLS CONFIGURE_DEPENDS tests/*/*_tool.c)
foreach(f ${FFAI_TEST_TOOLS})
  get_filename_component(name ${f} NAME_WE)
  add_executable(${name} ${f})
  target_link_libraries(${name} PRIVATE ffai_static)
endforeach()

# Parity with the official implementation on tiny checkpoints, which the generator writes into the build folder.
add_library(ffai_gen STATIC tests/families/gen_ckpt.c tests/families/gen_tensor.c tests/families/harness.c)
target_link_libraries(ffai_gen PUBLIC ffai_static)
target_include_directories(ffai_gen PUBLIC ${PROJECT_SOURCE_DIR}/tests)
add_executable(gen_ckpt tests/families/gen_main.c)
target_link_libraries(gen_ckpt PRIVATE ffai_gen)
target_compile_definitions(gen_ckpt PRIVATE FFAI_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
target_link_libraries(test_gen PRIVATE ffai_gen)
add_executable(parity tests/families/parity.c)
target_link_libraries(parity PRIVATE ffai_gen)
add_executable(real_check tests/real/real_check.c)
target_link_libraries(real_check PRIVATE ffai_gen)
if(TARGET ffai)
  foreach(group llama mistral qwen2 qwen3 gemma3 mlx_llama mlx_mistral mlx_qwen2 mlx_qwen3 mlx_gemma3 gguf_llama gguf_qwen2 gguf_qwen3 gguf_gemma3)
    add_test(NAME families.parity_${group} COMMAND parity $<TARGET_FILE:ffai> ${PROJECT_SOURCE_DIR}/tests/data/families
      ${PROJECT_BINARY_DIR}/fixtures ${group}_)
    set_tests_properties(families.parity_${group} PROPERTIES LABELS families TIMEOUT 900)
  endforeach()
endif()

file(GLOB FFAI_TEST_SCRIPTS CONFIGURE_DEPENDS tests/*/test_*.sh)
foreach(f ${FFAI_TEST_SCRIPTS})
  get_filename_component(name ${f} NAME_WE)
  get_filename_component(dir ${f} DIRECTORY)
  get_filename_component(suite ${dir} NAME)
  add_test(NAME ${suite}.${name} COMMAND bash ${f})
  set(env FFAI_SOURCE_DIR=${PROJECT_SOURCE_DIR} FFAI_BUILD_DIR=${PROJECT_BINARY_DIR} FFAI_SANITIZE=${FFAI_SANITIZE}
    CC=${CMAKE_C_COMPILER} CXX=${CMAKE_CXX_COMPILER})
  if(TARGET ffai)
    list(APPEND env FFAI=$<TARGET_FILE:ffai>)
  endif()
  set_tests_properties(${suite}.${name} PROPERTIES LABELS ${suite} TIMEOUT 600 SKIP_RETURN_CODE 77 ENVIRONMENT "${env}")
endforeach()

file(GLOB FFAI_FUZZ_SOURCES CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(f ${FFAI_FUZZ_SOURCES})
  get_filename_component(name ${f} NAME_WE)
  string(REPLACE "fuzz_" "" corpus ${name})
  add_executable(replay_${corpus} ${f} tests/fuzz/replay.c)
  target_link_libraries(replay_${corpus} PRIVATE ffai_static)
  add_test(NAME fuzz.replay_${corpus} COMMAND replay_${corpus} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${corpus})
  set_tests_properties(fuzz.replay_${corpus} PROPERTIES LABELS fuzz TIMEOUT 600)
  if(FFAI_FUZZ)
    add_executable(${name} ${f})
    target_link_libraries(${name} PRIVATE ffai_static -fsanitize=fuzzer)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
  endif()
endforeach()
