-- The tables that are read, as MLflow 3.17.2 makes them, and two runs that it recorded; paths and users taken out.
CREATE TABLE "experiments" (
	experiment_id INTEGER NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	artifact_location VARCHAR(256), 
	lifecycle_stage VARCHAR(32), 
	creation_time BIGINT, 
	last_update_time BIGINT, 
	workspace VARCHAR(63) DEFAULT 'default' NOT NULL, 
	CONSTRAINT experiment_pk PRIMARY KEY (experiment_id), 
	CONSTRAINT experiments_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	CONSTRAINT uq_experiments_workspace_name UNIQUE (workspace, name)
);
INSERT INTO experiments VALUES (0, 'Default', 'artifacts', 'active', 1795284768398, 1795284768398, 'default');
INSERT INTO experiments VALUES (1, 'exp', 'artifacts', 'active', 1795284768402, 1795284768402, 'default');
CREATE TABLE "runs" (
	run_uuid VARCHAR(32) NOT NULL, 
	name VARCHAR(250), 
	source_type VARCHAR(20), 
	source_name VARCHAR(500), 
	entry_point_name VARCHAR(50), 
	user_id VARCHAR(256), 
	status VARCHAR(9), 
	start_time BIGINT, 
	end_time BIGINT, 
	source_version VARCHAR(50), 
	lifecycle_stage VARCHAR(20), 
	artifact_uri VARCHAR(200), 
	experiment_id INTEGER, deleted_time BIGINT, 
	CONSTRAINT run_pk PRIMARY KEY (run_uuid), 
	CONSTRAINT source_type CHECK (source_type IN ('NOTEBOOK', 'JOB', 'LOCAL', 'UNKNOWN', 'PROJECT')), 
	CONSTRAINT runs_lifecycle_stage CHECK (lifecycle_stage IN ('active', 'deleted')), 
	FOREIGN KEY(experiment_id) REFERENCES experiments (experiment_id), 
	CHECK (status IN ('SCHEDULED', 'FAILED', 'FINISHED', 'RUNNING', 'KILLED'))
);
INSERT INTO runs VALUES ('36ef9ab934864304bdc7e6d8e3b95973', 'first', 'UNKNOWN', '', '', 'someone', 'FINISHED', 1795284768573, 1795284769163, '', 'active', 'artifacts', 1, NULL);
INSERT INTO runs VALUES ('b1ea1ed9d87c434bb41296997faa8f53', 'second', 'UNKNOWN', '', '', 'someone', 'FINISHED', 1795284769192, 1795284769243, '', 'active', 'artifacts', 1, NULL);
CREATE TABLE "metrics" (
	"key" VARCHAR(250) NOT NULL, 
	value FLOAT NOT NULL, 
	timestamp BIGINT NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	step BIGINT DEFAULT '0' NOT NULL, 
	is_nan BOOLEAN DEFAULT '0' NOT NULL, 
	CONSTRAINT metric_pk PRIMARY KEY ("key", timestamp, step, run_uuid, value, is_nan), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid), 
	CHECK (is_nan IN (0, 1))
);
INSERT INTO metrics VALUES ('loss', 1.0, 1795284768683, '36ef9ab934864304bdc7e6d8e3b95973', 0, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284768696, '36ef9ab934864304bdc7e6d8e3b95973', 0, 0);
INSERT INTO metrics VALUES ('loss', 0.5, 1795284768719, '36ef9ab934864304bdc7e6d8e3b95973', 1, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284768747, '36ef9ab934864304bdc7e6d8e3b95973', 1, 0);
INSERT INTO metrics VALUES ('loss', 0.3333333333333333, 1795284768775, '36ef9ab934864304bdc7e6d8e3b95973', 2, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284768803, '36ef9ab934864304bdc7e6d8e3b95973', 2, 0);
INSERT INTO metrics VALUES ('loss', 0.0, 1795284768823, '36ef9ab934864304bdc7e6d8e3b95973', 3, 1);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284768851, '36ef9ab934864304bdc7e6d8e3b95973', 3, 0);
INSERT INTO metrics VALUES ('loss', 0.2, 1795284768871, '36ef9ab934864304bdc7e6d8e3b95973', 4, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284768891, '36ef9ab934864304bdc7e6d8e3b95973', 4, 0);
INSERT INTO metrics VALUES ('loss', 0.16666666666666666, 1795284768911, '36ef9ab934864304bdc7e6d8e3b95973', 5, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284768939, '36ef9ab934864304bdc7e6d8e3b95973', 5, 0);
INSERT INTO metrics VALUES ('loss', 0.14285714285714285, 1795284768963, '36ef9ab934864304bdc7e6d8e3b95973', 6, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284768987, '36ef9ab934864304bdc7e6d8e3b95973', 6, 0);
INSERT INTO metrics VALUES ('loss', 0.125, 1795284769011, '36ef9ab934864304bdc7e6d8e3b95973', 7, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284769035, '36ef9ab934864304bdc7e6d8e3b95973', 7, 0);
INSERT INTO metrics VALUES ('loss', 0.1111111111111111, 1795284769055, '36ef9ab934864304bdc7e6d8e3b95973', 8, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284769074, '36ef9ab934864304bdc7e6d8e3b95973', 8, 0);
INSERT INTO metrics VALUES ('loss', 0.1, 1795284769099, '36ef9ab934864304bdc7e6d8e3b95973', 9, 0);
INSERT INTO metrics VALUES ('inf', 1.7976931348623157e+308, 1795284769127, '36ef9ab934864304bdc7e6d8e3b95973', 9, 0);
INSERT INTO metrics VALUES ('acc', 0.5, 1795284769215, 'b1ea1ed9d87c434bb41296997faa8f53', 0, 0);
CREATE TABLE "params" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000) NOT NULL, 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT param_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO params VALUES ('lr', '0.1', '36ef9ab934864304bdc7e6d8e3b95973');
INSERT INTO params VALUES ('api_key', 'hunter2', '36ef9ab934864304bdc7e6d8e3b95973');
CREATE TABLE "tags" (
	"key" VARCHAR(250) NOT NULL, 
	value VARCHAR(8000), 
	run_uuid VARCHAR(32) NOT NULL, 
	CONSTRAINT tag_pk PRIMARY KEY ("key", run_uuid), 
	FOREIGN KEY(run_uuid) REFERENCES runs (run_uuid)
);
INSERT INTO tags VALUES ('mlflow.source.type', 'LOCAL', '36ef9ab934864304bdc7e6d8e3b95973');
INSERT INTO tags VALUES ('mlflow.runName', 'first', '36ef9ab934864304bdc7e6d8e3b95973');
INSERT INTO tags VALUES ('team', 'x', '36ef9ab934864304bdc7e6d8e3b95973');
INSERT INTO tags VALUES ('mlflow.source.type', 'LOCAL', 'b1ea1ed9d87c434bb41296997faa8f53');
INSERT INTO tags VALUES ('mlflow.runName', 'second', 'b1ea1ed9d87c434bb41296997faa8f53');
