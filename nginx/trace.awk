# Of nginx's debug log, keep the lines that tell when a server was picked and released, and for
# which request. After a pick or a release keep the same worker's next line too: by then it is done.
# The number in front of each line keeps the order and the gaps of the whole log.
# Lines are cut to `width` characters, 120 unless told.
#   awk -f trace.awk trace.log

BEGIN { if (!width) width = 120 }
function keep() { print NR ":" substr($0, 1, width) }

/\*[0-9]+ http request line: /                                          { keep(); next }
/\*[0-9]+ (get [a-z0-9 ]+ peer, try: |free least time peer|free rr peer [0-9])/ {
  keep()
  follows[$4] = 1
  next
}
follows[$4]                                                             { keep(); follows[$4] = 0 }
