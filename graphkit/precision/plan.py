from graphkit.lowering import Kept as Kept
from graphkit.lowering import Lowering as Lowering
from graphkit.lowering import Precision as Precision
