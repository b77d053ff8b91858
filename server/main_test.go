package server

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/daisi/daisi-ws/loop"
)

func TestMain(m *testing.M) {
	loop.SetProcessDefaults()
	goleak.VerifyTestMain(m)
}
