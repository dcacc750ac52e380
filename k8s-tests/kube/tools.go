//go:build tools

// Package main: programs that are built from this module beside our own.
package main

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
