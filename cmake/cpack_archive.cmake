# Run by cpack when packages are made: archives once more, by tar, without the user and group of who builds (cpack 3.25 keeps them).
if(NOT CPACK_GENERATOR STREQUAL "TGZ")
  return()
endif()
foreach(file ${CPACK_PACKAGE_FILES})
  get_filename_component(name ${file} NAME)
  set(again ${CPACK_TEMPORARY_DIRECTORY}/again)
  file(REMOVE_RECURSE ${again})
  file(MAKE_DIRECTORY ${again})
  execute_process(COMMAND tar -xpzf ${file} --no-same-owner -C ${again} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND find ${again} -exec touch -h -d @$ENV{SOURCE_DATE_EPOCH} {} + COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND sh -c "tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u+rwX,go=rX --format=ustar -cf - -C '${again}' $(ls '${again}') | gzip -9n >'${file}'"
    COMMAND_ERROR_IS_FATAL ANY)
endforeach()
