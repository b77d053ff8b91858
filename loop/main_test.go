package loop

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	SetProcessDefaults()
	goleak.VerifyTestMain(m)
}
