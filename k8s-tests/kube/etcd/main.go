// Command etcd is etcd's server. It cannot be had by `go install`, as its own module has replace directives.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
